"""How a run executes: graph, plan, state machine, nodes and their child processes."""
