"""What a user sees of the results: report.html and the lines that `eval` prints."""
