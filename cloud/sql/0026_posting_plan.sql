-- Each posting looks its identities up in the index of all transfers. Until a young table has been
-- analysed, the planner takes it for small and reads the whole of it for each posting: after 100,000
-- transfers a batch cost three times as much as at first. The tables that a posting touches by their
-- keys have no better plan than these.
ALTER FUNCTION ledger_post
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off;
