"""The C sources that ship with graphc: the runtime of every module, its interface, and an example."""
