"""Rules of the web views, on workers that keep their tables in memory."""
