"""The worker: it runs tasks, and removes bytes that nothing points at."""
