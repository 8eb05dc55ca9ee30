"""The command line: `d3hr`."""
