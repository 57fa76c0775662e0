"""The adapters, and the frameworks' own stores: one module each, run in the framework's process."""
