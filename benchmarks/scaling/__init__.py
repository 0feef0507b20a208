"""A capacity model fed by measured figures, and a simulation of many schedulers."""
