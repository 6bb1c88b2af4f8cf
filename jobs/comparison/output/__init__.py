"""The comparison as JSON, CSV, Markdown, HTML and a table on the terminal."""
