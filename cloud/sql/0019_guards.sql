-- Drafts of policies and of statements are decided once as well, and their words never change.

CREATE TRIGGER policy_draft_guard BEFORE UPDATE OR DELETE ON policy_draft
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms', 'sequence');
CREATE TRIGGER epoch_statement_guard BEFORE UPDATE OR DELETE ON epoch_statement
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms', 'object');
