"""The report "Free vs Fast adversarial training", run again: its runs, its tables, its figures."""
