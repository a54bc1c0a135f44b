//! What is served, what runs for it, and what it used.

use super::{Kind, ONE, Special, Writes, act, begin};

pub(super) const DEPLOY: Kind = Kind {
    noun: "deploy",
    about: "Deployments: what is served under which name",
    path: "/deployments",
    writes: Writes::All,
    columns: &[
        ("ENDPOINT", "endpoint"),
        ("MODEL", "model"),
        ("REPLICAS", "replicas"),
        ("CPU", "cpu_millis"),
        ("GPUS", "gpus"),
        ("LIVE", "live_version"),
        ("CLEARANCE", "clearance"),
        ("OPEN", "open_to_all"),
        ("ID", "id"),
    ],
    specials: &[
        begin(
            "rollback",
            "Go back to the revision that was served before: reason=…",
            "NAME",
            "/deployments/{0}/rollback",
        ),
        act(
            "stop",
            "Serve nothing any more: reason=…",
            "NAME",
            "/deployments/{0}/stop",
        ),
        act(
            "require",
            "Require an evaluation of what it is to serve, beside the model's: evaluation=… reason=…",
            "NAME",
            "/deployments/{0}/require",
        ),
        act(
            "unrequire",
            "Require an evaluation of its own no more: evaluation=… reason=…",
            "NAME",
            "/deployments/{0}/unrequire",
        ),
    ],
    examples: "  sluice deploy create helpdesk model=helpdesk cpu_millis=2000\n  sluice workorder create helpdesk version=v2 reason='better answers'\n  sluice deploy rollback helpdesk reason='wrong tickets' --wait",
};

pub(super) const WORKORDER: Kind = Kind {
    noun: "workorder",
    about: "Work orders: each change of what a deployment serves",
    path: "/work_orders",
    writes: Writes::OnlyCreate,
    columns: &[
        ("ID", "id"),
        ("DEPLOYMENT", "deployment"),
        ("CANDIDATE", "candidate"),
        ("STATE", "state"),
        ("REASON", "reason"),
        ("CREATED", "created_at"),
    ],
    specials: &[
        begin(
            "approve",
            "Let it through the gate and the quotas, and carry it out: override_reason=…",
            "ID",
            "/work_orders/{0}/approve",
        ),
        act(
            "reject",
            "Refuse one that is pending: reason=…",
            "ID",
            "/work_orders/{0}/reject",
        ),
        act(
            "abort",
            "End one that has taken no traffic yet: reason=…",
            "ID",
            "/work_orders/{0}/abort",
        ),
        Special {
            verb: "steps",
            about: "List what was done, step by step",
            argument: "ID",
            method: "GET",
            path: "/work_orders/{0}/steps",
            columns: &[
                ("STEP", "name"),
                ("STATUS", "status"),
                ("BY", "actor"),
                ("STARTED", "started_at"),
                ("FINISHED", "finished_at"),
            ],
            begins: false,
        },
        Special {
            verb: "watch",
            about: "Follow it until it is over",
            argument: "ID",
            method: "WATCH",
            path: "/work_orders/{0}",
            columns: ONE,
            begins: false,
        },
    ],
    examples: "  sluice workorder create helpdesk version=v2 reason='better answers'\n  sluice workorder approve wo_… --wait\n  sluice workorder list deployment=helpdesk\n  sluice workorder steps wo_…",
};

pub(super) const TASK: Kind = Kind {
    noun: "task",
    about: "Tasks: what runs and how far it is",
    path: "/tasks",
    writes: Writes::None,
    columns: &[
        ("ID", "id"),
        ("KIND", "kind"),
        ("STATE", "state"),
        ("DONE", "progress_fraction"),
        ("MESSAGE", "error.message|progress_message"),
        ("ATTEMPT", "attempt"),
        ("CREATED", "created_at"),
    ],
    specials: &[
        begin("cancel", "Cancel a task", "ID", "/tasks/{0}/cancel"),
        Special {
            verb: "watch",
            about: "Follow a task with its progress until it is over",
            argument: "ID",
            method: "WATCH",
            path: "/tasks/{0}",
            columns: ONE,
            begins: false,
        },
    ],
    examples: "  sluice task list state=running\n  sluice task watch tsk_…\n  sluice task cancel tsk_… --wait",
};

pub(super) const QUOTA: Kind = Kind {
    noun: "quota",
    about: "Limits of departments and people",
    path: "/quotas",
    writes: Writes::All,
    columns: &[
        ("ID", "id"),
        ("DEPARTMENT", "department"),
        ("PRINCIPAL", "principal"),
        ("REQUESTS/MIN", "requests_per_minute"),
        ("TOKENS/MIN", "tokens_per_minute"),
        ("TOKENS/MONTH", "tokens_per_month"),
        ("CPU", "cpu_millis"),
        ("MEMORY", "memory_bytes"),
    ],
    specials: &[],
    examples: "  sluice quota create department=it tokens_per_minute=100000\n  sluice quota update quo_… tokens_per_minute=null",
};

pub(super) const USAGE: Kind = Kind {
    noun: "usage",
    about: "What was used",
    path: "/usage",
    writes: Writes::OnlyList,
    columns: &[
        ("GROUP", "group"),
        ("REQUESTS", "requests"),
        ("ERRORS", "errors"),
        ("INPUT TOKENS", "input_tokens"),
        ("OUTPUT TOKENS", "output_tokens"),
        ("CPU µs", "cpu_us"),
    ],
    specials: &[Special {
        verb: "entries",
        about: "List the ledger, newest first",
        argument: "",
        method: "GET",
        path: "/usage/entries",
        columns: &[
            ("AT", "at"),
            ("PRINCIPAL", "principal"),
            ("DEPLOYMENT", "deployment"),
            ("STATUS", "status"),
            ("INPUT", "input_tokens"),
            ("OUTPUT", "output_tokens"),
        ],
        begins: false,
    }],
    examples: "  sluice usage list by=day from=2026-01-01T00:00:00Z\n  sluice usage entries department=it",
};
