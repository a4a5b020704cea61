-- PostgreSQL's compression of a large snapshot takes longer than all else that a report costs.
ALTER TABLE journal_snapshot ALTER COLUMN snapshot SET STORAGE EXTERNAL;
