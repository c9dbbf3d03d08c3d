"""Pure parts: no await, no socket, no file, no clock. Times and ids come in as arguments."""
