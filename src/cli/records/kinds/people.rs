//! Who may what, and who did what.

use super::{Kind, Writes, act};

pub(super) const KEY: Kind = Kind {
    noun: "key",
    about: "API keys: one's own, and anyone's for who may manage people",
    path: "/keys",
    writes: Writes::NoUpdate,
    columns: &[
        ("NAME", "name"),
        ("WHOSE", "principal"),
        ("PREFIX", "prefix"),
        ("SCOPES", "scopes"),
        ("MODELS", "models"),
        ("EXPIRES", "expires_at"),
        ("LAST USED", "last_used_at"),
        ("MADE BY", "made_by"),
        ("ID", "id"),
    ],
    specials: &[act(
        "rotate",
        "Make the next key of a key's line; the old one ends, at once or after --overlap",
        "NAME",
        "/keys/{0}/rotate",
    )],
    examples: "  sluice key create laptop scopes='[\"inference\"]'     # the secret is shown once\n  sluice key create ci principal=robot models='[\"helpdesk\"]' requests_per_minute=60 tokens_per_month=1000000\n  sluice key rotate ci --overlap 1h\n  sluice key list principal=ada\n  sluice key delete laptop",
};

pub(super) const PRINCIPAL: Kind = Kind {
    noun: "principal",
    about: "People and programs, with their roles",
    path: "/principals",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("ROLE", "role"),
        ("CLEARANCE", "clearance"),
        ("DEPARTMENT", "department"),
        ("DISABLED", "disabled"),
        ("ID", "id"),
    ],
    specials: &[],
    examples: "  sluice principal create ada role=developer department=it clearance=confidential\n  sluice principal update ada disabled=true",
};

pub(super) const DEPARTMENT: Kind = Kind {
    noun: "department",
    about: "Departments",
    path: "/departments",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("DESCRIPTION", "description"),
        ("ID", "id"),
    ],
    specials: &[act(
        "gate-policy",
        "Change what the department lets pass at its gates: allows='[\"no_required_evaluations\"]' reason=…",
        "NAME",
        "/departments/{0}/gate_policy",
    )],
    examples: "  sluice department create it description='Information technology'\n  sluice department gate-policy it allows='[\"no_required_evaluations\"]' reason='a pilot'",
};

pub(super) const GRANT: Kind = Kind {
    noun: "grant",
    about: "Access to datasets, models and deployments beyond the role",
    path: "/grants",
    writes: Writes::All,
    columns: &[
        ("ID", "id"),
        ("OF", "object_kind"),
        ("OBJECT", "object_id"),
        ("PRINCIPAL", "principal"),
        ("DEPARTMENT", "department"),
        ("ACCESS", "access"),
    ],
    specials: &[],
    examples: "  sluice grant create dataset=tickets department=it access=use\n  sluice grant create deployment=helpdesk department=sales access=use\n  sluice grant delete grt_…",
};

pub(super) const AUDIT: Kind = Kind {
    noun: "audit",
    about: "Who did what to which record",
    path: "/audit",
    writes: Writes::OnlyList,
    columns: &[
        ("AT", "at"),
        ("WHO", "actor_name"),
        ("DID", "verb"),
        ("TO", "object_kind"),
        ("WHICH", "object_id"),
        ("BECAUSE", "reason"),
    ],
    specials: &[],
    examples: "  sluice audit list actor=ada verb=approve\n  sluice audit list object=mdv_… -o json",
};
