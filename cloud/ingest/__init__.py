"""How reports reach the reconciler: at once, or by the stream and workers."""
