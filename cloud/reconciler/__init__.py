"""The reconciler: what journals report is checked by the same rules, posted and settled."""
