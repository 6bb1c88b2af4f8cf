"""Files and logs in, summaries of runs out."""
