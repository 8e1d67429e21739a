"""Caption groups from vLLM engines in Ray actors: `settings`, `engine` (one process), `worker` (one actor), `pool`."""
