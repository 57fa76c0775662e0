"""Programs that tests run, kill and start anew."""
