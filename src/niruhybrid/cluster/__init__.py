"""Past one machine: the same pipeline on engines that exist, one module for each."""
