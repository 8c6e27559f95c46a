"""The training loop: trainer, step, loss, optimizers, schedules and resuming."""
