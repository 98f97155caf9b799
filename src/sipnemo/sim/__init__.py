"""A world whose clock we own: whole nodes, the networks between them and media, in one process and in virtual time."""
