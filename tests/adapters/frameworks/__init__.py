"""Each framework, by its own objects: how a conversation is written and read."""
