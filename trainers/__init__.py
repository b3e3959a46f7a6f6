"""How a model is trained: the task, stages, optimisers, callbacks, checkpoint I/O, the command line."""
