-- Whether an entry's rejection freezes the wallet that it brought value to, until officers take it
-- off the list: what it brought is spent by nobody, whoever else it may belong to.
ALTER TABLE entry_decision ADD COLUMN freezes boolean NOT NULL DEFAULT false;
ALTER TABLE entry_decision ADD CONSTRAINT entry_decision_freeze
    CHECK (NOT freezes OR action = 'reject');
