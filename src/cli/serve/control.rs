//! The control plane inside `sluice serve`: started beside the models, never waited for.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sluice_control::api;
use sluice_control::control::{Control, ControlSettings};
use sluice_control::store::{DatabaseUrl, StoreSettings};
use sluice_gateway::Gateway;
use sluice_gateway::config::{Config, ControlConfig};
use sluice_gateway::server::Stop;

/// Puts the API under `/api` and opens the database in the background. `None` where it is turned off.
///
/// # Errors
/// `control.database` names no database.
pub(super) fn start(gateway: &Arc<Gateway>, stop: &Stop) -> Result<Option<Control>> {
    let config = gateway.config();
    if !config.control.enabled {
        return Ok(None);
    }
    let url = database(config)?;
    let control = Control::new(ControlSettings {
        open: !config.auth.required,
        max_body: config.control.max_body,
        idempotency_keep: config.control.idempotency_keep,
    });
    gateway.set_control(api::service(&control));
    let settings = store_settings(&config.control);
    let opening = control.clone();
    tokio::spawn(async move { opening.connect(&url, &settings).await });
    let (stopping, stop) = (control.clone(), stop.clone());
    tokio::spawn(async move {
        stop.wait().await;
        stopping.stop();
    });
    Ok(Some(control))
}

/// The database that a configuration names.
///
/// # Errors
/// It is none.
pub(crate) fn database(config: &Config) -> Result<DatabaseUrl> {
    match &config.control.database {
        Some(text) => text
            .parse()
            .context("control.database of the configuration"),
        None => Ok(default_database(&config.data)),
    }
}

fn default_database(data: &Path) -> DatabaseUrl {
    DatabaseUrl::Sqlite(data.join("sluice.db"))
}

pub(crate) fn store_settings(config: &ControlConfig) -> StoreSettings {
    StoreSettings {
        connections: config.connections,
        full_sync: config.full_sync,
        ..StoreSettings::default()
    }
}
