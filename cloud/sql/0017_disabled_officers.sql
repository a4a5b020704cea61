-- An officer is disabled by two administrators, like every other change: one alone could leave the
-- others without the second pair of eyes.

ALTER TABLE officer_draft ADD COLUMN disabled boolean NOT NULL DEFAULT false;
ALTER TABLE officer_draft DROP CONSTRAINT officer_draft_roles_check;
ALTER TABLE officer_draft ADD CONSTRAINT officer_draft_roles_check
    CHECK ((cardinality(roles) = 0) = disabled);

DROP TRIGGER officer_draft_guard ON officer_draft;
DROP FUNCTION officer_draft_guard();
CREATE TRIGGER officer_draft_guard BEFORE UPDATE OR DELETE ON officer_draft
    FOR EACH ROW EXECUTE FUNCTION draft_guard('state', 'decided_by', 'decided_ms');
