"""The drafts' nouns: values and pure functions only. Open `egress_list.py` first."""
