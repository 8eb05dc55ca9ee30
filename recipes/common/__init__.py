"""What recipes share.

- `program`, `settings`, `prerequisites`, `errors`: a recipe as a command
- `training_loop`, `batches`, `learning_rates`, `ema`: a training that goes on where it was interrupted
- `classifier`, `tensor_cache`, `results`: what measurements look at, and write
"""
