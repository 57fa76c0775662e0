"""What tests work with: real servers, proxies that break connections, callers that keep account.

Nothing here is a fixture; those are in the ``conftest.py`` files.
"""
