"""What the benchmarks beside this folder share: peers, their clients, the kernel's counters, figures, a plot."""
