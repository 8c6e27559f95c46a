"""Generated rows of agents in every layout, with faults, and what each row must become."""
