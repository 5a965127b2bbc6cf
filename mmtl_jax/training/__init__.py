"""Floor 4: from an objective to a trained model: state, step, mesh, optimizer, evaluation, checkpoints, loop."""
