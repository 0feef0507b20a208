"""Past one machine: adapters to engines that exist, each in a module of its own."""
