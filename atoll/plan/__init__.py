"""What a run will take, before it runs: bytes, memory, time and disk, and what to change."""
