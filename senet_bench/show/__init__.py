"""Tables, plots and pages from stored rows; nothing here measures or loads torch."""
