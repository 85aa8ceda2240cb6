//! Primary-backup behind the server.

use std::time::Duration;

use synod_protocols::backup::{AfterLoss, Options, PrimaryBackup, Replication};

use super::{Chosen, House, Row, Served, Sizes, Told, Variant, minority};
use crate::config::{ConfigError, Flag};
use crate::contract::{Cell, Offer};

const REPLICATION: &[(&str, Replication)] = &[("sync", Replication::Sync), ("async", Replication::Async)];
const AFTER_LOSS: &[(&str, AfterLoss)] = &[("refuse", AfterLoss::Refuse), ("serve", AfterLoss::Serve)];

impl Served for PrimaryBackup {
    const ROW: Row = Row {
        name: "primary-backup",
        about: "primary-backup: one orders, its backups follow; every backup must have a write (sync), or none need (async)",
        flags: &[
            Flag::value(
                "replication",
                "sync",
                "When a write is answered: sync, when every backup has it on disk; async, when the primary has",
            ),
            Flag::value(
                "backup-timeout",
                "auto",
                "How long a silent backup blocks writes (sync) before the view changes without it; auto: the election timeout",
            ),
            Flag::value(
                "after-loss",
                "refuse",
                "Linearizable reads once a failover may have lost writes (async): refuse, or serve",
            ),
        ],
        sizes: Sizes::ANY,
        losses: minority,
        house: House::Leader,
        variants: &[
            Variant { name: "sync", flags: &[("replication", "sync")] },
            Variant { name: "async", flags: &[("replication", "async")] },
        ],
    };

    fn check(flags: &Chosen) -> Result<(), ConfigError> {
        flags.word("replication", REPLICATION)?;
        flags.word("after-loss", AFTER_LOSS)?;
        backup_timeout(flags)?;
        Ok(())
    }

    fn options(told: &Told<'_>) -> Result<Options, ConfigError> {
        let (settings, flags) = (told.settings, told.flags);
        let mut options = Options::timed(settings.heartbeat, settings.election_timeout);
        options.replication = flags.word("replication", REPLICATION)?;
        options.after_loss = flags.word("after-loss", AFTER_LOSS)?;
        if let Some(timeout) = backup_timeout(flags)? {
            options.backup_timeout = timeout;
        }
        if told.founders.voters.len() == 1 {
            // There is nobody whose silence would have to be waited for: a restart serves that much sooner.
            options.election_timeout = settings.heartbeat * 2;
            options.election_jitter = Duration::ZERO;
            options.clock_drift_max = Duration::ZERO;
        }
        options.check().map_err(|wrong| ConfigError::new(wrong.to_string()))?;
        Ok(options)
    }

    fn offer(flags: &Chosen) -> Offer {
        if !matches!(flags.word("replication", REPLICATION), Ok(Replication::Async)) {
            return Offer::EVERYTHING;
        }
        const LOST: &str =
            "after a failover that may have lost acknowledged writes: refused, unless after-loss=serve";
        Offer {
            writes: Cell::Noted(
                "answered when the primary alone has them on disk: a failover loses those that no backup had yet",
            ),
            linearizable: Cell::Noted(LOST),
            revisions: Cell::Noted("a failover may take back revisions: watches are then canceled"),
            leases: Cell::Noted("a failover may take back grants and renewals that no backup had yet"),
            ..Offer::EVERYTHING
        }
    }
}

/// The flag's value; none when it goes by the election timeout.
fn backup_timeout(flags: &Chosen) -> Result<Option<Duration>, ConfigError> {
    if flags.text("backup-timeout") == "auto" { Ok(None) } else { flags.span("backup-timeout").map(Some) }
}
