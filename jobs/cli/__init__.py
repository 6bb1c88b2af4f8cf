"""The command line, which both programs share."""
