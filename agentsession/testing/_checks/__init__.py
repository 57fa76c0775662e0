"""The checks of the promises, each module those about one subject."""
