//! The tables that the verbs are made from: kinds of record, their columns, and what is special about each.

use super::evaluations;

/// A kind of record on the command line.
#[derive(Debug)]
pub(super) struct Kind {
    /// `model`.
    pub noun: &'static str,
    pub about: &'static str,
    /// `/models`.
    pub path: &'static str,
    /// Whether records are made, changed and put away; otherwise they are only looked at.
    pub writes: Writes,
    /// Heading and field, or a dotted path, of each column of a list.
    pub columns: &'static [(&'static str, &'static str)],
    pub specials: &'static [Special],
    /// For `--help`.
    pub examples: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// create, update, delete.
    All,
    /// create and delete: keys.
    NoUpdate,
    /// create: what has a life of its own then.
    OnlyCreate,
    None,
    /// Not even `show`: there are only lists.
    OnlyList,
}

/// A verb of one kind.
#[derive(Debug)]
pub(super) struct Special {
    pub verb: &'static str,
    pub about: &'static str,
    /// What the argument is called: `NAME`, `NAME@VERSION`, `ID`.
    pub argument: &'static str,
    pub method: &'static str,
    /// `{0}` and `{1}` stand for the parts of the argument before and after `@`.
    pub path: &'static str,
    pub columns: &'static [(&'static str, &'static str)],
    /// Begins something that takes its time: `--wait` follows it.
    pub begins: bool,
}

const VERSIONS: &[(&str, &str)] = &[
    ("VERSION", "number"),
    ("STATE", "state"),
    ("DIGEST", "digest"),
    ("APPROVED", "approved_at"),
    ("NOTE", "note"),
    ("ID", "id"),
];
const DATA_VERSIONS: &[(&str, &str)] = &[
    ("VERSION", "number"),
    ("ROWS", "row_count"),
    ("BYTES", "bytes"),
    ("DIGEST", "digest"),
    ("NOTE", "note"),
    ("ID", "id"),
];
const RUNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("STATUS", "status"),
    ("STARTED", "started_at"),
    ("FINISHED", "finished_at"),
    ("ERROR", "error"),
];
pub(super) const ONE: &[(&str, &str)] = &[];

pub(super) const fn list(
    verb: &'static str,
    about: &'static str,
    path: &'static str,
    columns: &'static [(&'static str, &'static str)],
) -> Special {
    Special {
        verb,
        about,
        argument: "NAME",
        method: "GET",
        path,
        columns,
        begins: false,
    }
}

pub(super) const fn act(
    verb: &'static str,
    about: &'static str,
    argument: &'static str,
    path: &'static str,
) -> Special {
    Special {
        verb,
        about,
        argument,
        method: "POST",
        path,
        columns: ONE,
        begins: false,
    }
}

const fn begin(
    verb: &'static str,
    about: &'static str,
    argument: &'static str,
    path: &'static str,
) -> Special {
    Special {
        begins: true,
        ..act(verb, about, argument, path)
    }
}

const VERSION: &str = "NAME@VERSION";

pub(super) static KINDS: &[Kind] = &[
    Kind {
        noun: "model",
        about: "Models and their versions",
        path: "/models",
        writes: Writes::All,
        columns: &[
            ("NAME", "name"),
            ("DESCRIPTION", "description"),
            ("TRAINED WITH", "train_framework"),
            ("UPDATED", "updated_at"),
            ("ID", "id"),
        ],
        specials: &[
            list(
                "versions",
                "List a model's versions",
                "/models/{0}/versions",
                VERSIONS,
            ),
            act(
                "add-version",
                "Add the next version: note=… training_run=… datasets=…",
                "NAME",
                "/models/{0}/versions",
            ),
            act(
                "register",
                "Register a draft's content: artifact=… or digest=…",
                VERSION,
                "/models/{0}/versions/{1}/register",
            ),
            act(
                "link",
                "Add a dataset version to the lineage: dataset=name@v1 use_of=train",
                VERSION,
                "/models/{0}/versions/{1}/datasets",
            ),
            act(
                "request-approval",
                "Ask for approval after a passed evaluation",
                VERSION,
                "/models/{0}/versions/{1}/request_approval",
            ),
            act(
                "request-override",
                "Ask for approval in spite of a failed one: reason=…",
                VERSION,
                "/models/{0}/versions/{1}/request_override",
            ),
            act(
                "approve",
                "Approve, if the gate is open: deployment=… override_reason=…",
                VERSION,
                "/models/{0}/versions/{1}/approve",
            ),
            act(
                "reject",
                "Reject: reason=…",
                VERSION,
                "/models/{0}/versions/{1}/reject",
            ),
            act(
                "invalidate",
                "Send back to registered: reason=…",
                VERSION,
                "/models/{0}/versions/{1}/invalidate",
            ),
            act(
                "archive",
                "Archive a version that is not live",
                VERSION,
                "/models/{0}/versions/{1}/archive",
            ),
            list(
                "prompts",
                "List a model's prompt versions",
                "/models/{0}/prompts",
                &[
                    ("NAME", "name"),
                    ("VERSION", "number"),
                    ("NOTE", "note"),
                    ("ID", "id"),
                ],
            ),
            act(
                "add-prompt",
                "Add the next version of a prompt: name=… template=@file",
                "NAME",
                "/models/{0}/prompts",
            ),
        ],
        examples: "  sluice model create helpdesk description='IT questions' train_framework=pytorch\n  sluice model show helpdesk\n  sluice model add-version helpdesk note='first try'\n  sluice model convert helpdesk --pipeline convert-causal-lm --source checkpoints/v2 precision=int8 --add-version\n  sluice model approve helpdesk@v2",
    },
    Kind {
        noun: "dataset",
        about: "Datasets and their versions",
        path: "/datasets",
        writes: Writes::All,
        columns: &[
            ("NAME", "name"),
            ("MODALITY", "modality"),
            ("SECRECY", "secrecy"),
            ("SOURCE", "source"),
            ("ID", "id"),
        ],
        specials: &[
            list(
                "versions",
                "List a dataset's versions",
                "/datasets/{0}/versions",
                DATA_VERSIONS,
            ),
            act(
                "add-version",
                "Register the next version: artifact=… or digest=… row_count=…",
                "NAME",
                "/datasets/{0}/versions",
            ),
        ],
        examples: "  sluice dataset create tickets secrecy=internal source=hdfs://…\n  sluice dataset add-version tickets digest=sha256:… row_count=1200\n  sluice dataset versions tickets",
    },
    Kind {
        noun: "train",
        about: "Trainings and their runs",
        path: "/trainings",
        writes: Writes::All,
        columns: &[
            ("NAME", "name"),
            ("MODEL", "model"),
            ("RECIPE", "recipe"),
            ("ID", "id"),
        ],
        specials: &[
            list(
                "runs",
                "List a training's runs",
                "/trainings/{0}/runs",
                RUNS,
            ),
            act(
                "add-run",
                "Register a run: params='{…}' inputs='{…}'",
                "NAME",
                "/trainings/{0}/runs",
            ),
            act(
                "start-run",
                "Tell that a run began",
                "ID",
                "/training_runs/{0}/start",
            ),
            act(
                "finish-run",
                "Tell that a run succeeded: metrics='{…}' artifact=…",
                "ID",
                "/training_runs/{0}/succeed",
            ),
            act(
                "fail-run",
                "Tell that a run failed: error=…",
                "ID",
                "/training_runs/{0}/fail",
            ),
            act(
                "cancel-run",
                "Tell that a run was given up",
                "ID",
                "/training_runs/{0}/cancel",
            ),
        ],
        examples: "  sluice train create nightly model=helpdesk recipe='python train.py' datasets='[\"tickets@v1\"]'\n  sluice train add-run nightly params='{\"lr\": 0.0001}'\n  sluice train finish-run trr_… metrics='{\"loss\": 1.2}'",
    },
    evaluations::EVALUATION,
    evaluations::RUN,
    Kind {
        noun: "convert",
        about: "Conversion runs and their parity reports",
        path: "/conversions",
        writes: Writes::None,
        columns: &[
            ("ID", "id"),
            ("MODEL", "model"),
            ("FROM", "source_framework"),
            ("FORMAT", "number_format"),
            ("STATUS", "status"),
            ("PARITY", "parity_passed"),
        ],
        specials: &[Special {
            argument: "",
            ..list(
                "pipelines",
                "List the pipelines that convert",
                "/pipelines",
                &[
                    ("NAME", "name"),
                    ("FROM", "framework"),
                    ("SUMMARY", "summary"),
                ],
            )
        }],
        examples: "  sluice convert pipelines\n  sluice convert list model=helpdesk\n  sluice convert show cnr_… -o json",
    },
    Kind {
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
        ],
        examples: "  sluice deploy create helpdesk model=helpdesk cpu_millis=2000\n  sluice workorder create helpdesk version=v2 reason='better answers'\n  sluice deploy rollback helpdesk reason='wrong tickets' --wait",
    },
    Kind {
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
    },
    Kind {
        noun: "task",
        about: "Tasks: what runs and how far it is",
        path: "/tasks",
        writes: Writes::None,
        columns: &[
            ("ID", "id"),
            ("KIND", "kind"),
            ("STATE", "state"),
            ("DONE", "progress_fraction"),
            ("MESSAGE", "progress_message"),
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
    },
    Kind {
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
    },
    Kind {
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
    },
    Kind {
        noun: "key",
        about: "API keys",
        path: "/keys",
        writes: Writes::NoUpdate,
        columns: &[
            ("NAME", "name"),
            ("PREFIX", "prefix"),
            ("SCOPES", "scopes"),
            ("EXPIRES", "expires_at"),
            ("CREATED", "created_at"),
            ("ID", "id"),
        ],
        specials: &[],
        examples: "  sluice key create laptop scopes='[\"inference\"]'     # the secret is shown once\n  sluice key create ci principal=robot\n  sluice key delete key_…",
    },
    Kind {
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
    },
    Kind {
        noun: "department",
        about: "Departments",
        path: "/departments",
        writes: Writes::All,
        columns: &[
            ("NAME", "name"),
            ("DESCRIPTION", "description"),
            ("ID", "id"),
        ],
        specials: &[],
        examples: "  sluice department create it description='Information technology'",
    },
    Kind {
        noun: "grant",
        about: "Access to datasets and models beyond the role",
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
        examples: "  sluice grant create dataset=tickets department=it access=use\n  sluice grant delete grt_…",
    },
    Kind {
        noun: "artifact",
        about: "Artifacts: sets of files by digest",
        path: "/artifacts",
        writes: Writes::None,
        columns: &[
            ("NAME", "name"),
            ("KIND", "kind"),
            ("FILES", "files"),
            ("BYTES", "bytes"),
            ("DIGEST", "digest"),
            ("ID", "id"),
        ],
        specials: &[
            list(
                "files",
                "List an artifact's files",
                "/artifacts/{0}/files",
                &[("PATH", "path"), ("BYTES", "bytes"), ("DIGEST", "blob")],
            ),
            list(
                "references",
                "List what needs an artifact",
                "/artifacts/{0}/references",
                &[("KIND", "owner_kind"), ("ID", "owner_id")],
            ),
        ],
        examples: "  sluice artifact push checkpoints/v2 --name helpdesk-v2 --kind checkpoint\n  sluice artifact import https://example.com/model.tar.gz --name m --unpack --wait\n  sluice artifact pull art_… folder\n  sluice artifact list kind=model\n  sluice artifact files art_…",
    },
    Kind {
        noun: "audit",
        about: "Who did what to which record",
        path: "/audit",
        writes: Writes::OnlyList,
        columns: &[
            ("AT", "at"),
            ("WHO", "actor_name"),
            ("DID", "verb"),
            ("TO", "object_kind"),
            ("ID", "object_id"),
            ("BECAUSE", "reason"),
        ],
        specials: &[],
        examples: "  sluice audit list actor=ada verb=approve\n  sluice audit list object=mdv_… -o json",
    },
];
