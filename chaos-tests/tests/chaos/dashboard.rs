//! The dashboard in a real browser, as somebody uses it: a job is submitted, watched, loses a task manager and recovers, is saved and
//! cancelled; at last the job manager goes and comes back. Every view is looked at: pictures are in `target/tmp/dashboard`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use thalweg_chaos_tests::cluster::{Cluster, ClusterOptions};
use thalweg_chaos_tests::process::binary;
use thalweg_chaos_tests::wait;
use thalweg_common::id::JobId;
use thalweg_common::status::JobStatus;
use thalweg_test_support::Browser;
use thalweg_test_support::browser::ENTER;

/// The window of most pictures, in pixels.
const WINDOW: (u32, u32) = (1400, 1000);

/// Views of a job, and what each of them must say of this one.
const VIEWS: [(&str, &str); 7] = [
    ("graph", "Subtasks of"),
    ("time", "Watermarks of all tasks"),
    ("checkpoints", "COMPLETED"),
    ("faults", "RESTARTING"),
    ("charts", "Busiest subtask"),
    ("logs", "Logs"),
    ("settings", "execution.checkpointing.interval"),
];

/// A browser that shows the dashboard of a cluster.
struct Dashboard {
    browser: Browser,
    url: String,
    pictures: PathBuf,
}

impl Dashboard {
    /// Waits until an element's text holds this.
    async fn says(&self, selector: &str, words: &str) -> Result<()> {
        wait::until(&format!("`{selector}` to say `{words}`"), async || {
            let text = self.browser.text(selector).await?.unwrap_or_default();
            ensure!(text.contains(words), "it says `{}`", text.replace('\n', " | "));
            Ok(Some(()))
        })
        .await
    }

    /// Clicks as soon as there is something to click on.
    async fn click(&self, selector: &str) -> Result<()> {
        let clicked = async || self.browser.click(selector).await.map(Some);
        wait::until(&format!("a click on `{selector}`"), clicked).await
    }

    /// Goes to a page of the dashboard.
    async fn go(&self, page: &str) -> Result<()> {
        self.browser.run("location.hash = arguments[0]", json!([page])).await.map(drop)
    }

    /// A picture of all that is shown, as far as one looks at it in one piece.
    async fn picture(&self, name: &str) -> Result<()> {
        let height = self.browser.run("return document.documentElement.scrollHeight", json!([])).await?;
        let height = u32::try_from(height.as_u64().context("a height")?)?.clamp(WINDOW.1, 2 * WINDOW.1);
        self.browser.resize(WINDOW.0, height + 90).await?;
        self.browser.screenshot(&self.pictures.join(format!("{name}.png"))).await?;
        self.browser.resize(WINDOW.0, WINDOW.1).await
    }

    /// The first number of an element's text, without its unit.
    async fn number(&self, selector: &str) -> Result<f64> {
        let text = self.browser.text(selector).await?.with_context(|| format!("there is no `{selector}`"))?;
        let number: String = text
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        number.parse().with_context(|| format!("`{selector}` says `{text}`"))
    }

    /// Nothing was written to the console.
    async fn is_content(&self) -> Result<()> {
        let lines = self.browser.console().await?;
        ensure!(lines.is_empty(), "the console says:\n{}", lines.join("\n"));
        Ok(())
    }
}

#[tokio::test]
async fn a_job_is_submitted_watched_restarted_saved_and_cancelled_in_a_browser() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let options = ClusterOptions { task_managers: 2, ..ClusterOptions::default() }
        .set("rest.port", &port.to_string())
        .set("restart-strategy.type", "fixed-delay")
        .set("restart-strategy.fixed-delay.attempts", "100")
        .set("restart-strategy.fixed-delay.delay", "10 ms");
    let (mut cluster, browser) =
        tokio::try_join!(Cluster::start(options), Browser::start(WINDOW.0, WINDOW.1))?;
    let url = cluster.job_manager(1)?.ready("jobmanager rest").await?;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&pictures)?;
    let dashboard = Dashboard { browser, url, pictures };

    dashboard.browser.open(&dashboard.url).await?;
    dashboard.says("main", "No job runs").await?;
    let job = submit(&dashboard, &cluster).await?;
    watch(&dashboard).await?;
    lose_a_task_manager(&dashboard, &mut cluster).await?;
    save(&dashboard, &cluster).await?;
    look_at_everything(&dashboard, job).await?;
    cancel(&dashboard, &cluster, job).await?;
    dashboard.is_content().await?;
    lose_the_job_manager(&dashboard, &mut cluster).await
}

/// By keys to the page, with a file, arguments and a parallelism that takes all slots.
async fn submit(dashboard: &Dashboard, cluster: &Cluster) -> Result<JobId> {
    dashboard.browser.press("gs").await?;
    dashboard.says("main", "How it runs").await?;
    let job = binary("unbounded_counter")?;
    dashboard.browser.write("#binary", &job.display().to_string()).await?;
    dashboard.says("main tr[aria-selected=true]", "unbounded_counter").await?;
    let output = cluster.folder().join("counts");
    let arguments = format!("--rate 4000 --keys 50 --output '{}'", output.display());
    dashboard.browser.write("input[name=arguments]", &arguments).await?;
    dashboard.browser.write("input[name=parallelism]", "4").await?;
    dashboard.browser.write("textarea[name=settings]", "execution.checkpointing.interval: 300 ms").await?;
    dashboard.picture("light-submit").await?;
    dashboard.click("#run button[type=submit]").await?;
    dashboard.says("#state", "RUNNING").await?;
    let address = dashboard.browser.run("return location.hash", json!([])).await?;
    let id =
        address.as_str().and_then(|address| address.split('/').nth(2)).context("the address of a job")?;
    Ok(id.parse()?)
}

/// Rates come, and are about those that were asked for.
async fn watch(dashboard: &Dashboard) -> Result<()> {
    wait::until("records per second", async || {
        let rate = dashboard.number(".node .line b").await?;
        ensure!((2.0..6.0).contains(&rate), "the first vertex reads {rate} k/s");
        Ok(Some(()))
    })
    .await?;
    dashboard.says(".questions > .yes:nth-child(2)", "k/s").await?;
    dashboard.says(".questions > .yes:nth-child(5)", "/s").await?;
    // A click on another vertex shows its subtasks.
    dashboard.click(".node[data-key='1']").await?;
    dashboard.says("main", "Subtasks of Count").await
}

/// Without half of the slots the job waits, and says for what; with others it recovers.
async fn lose_a_task_manager(dashboard: &Dashboard, cluster: &mut Cluster) -> Result<()> {
    let victim = *cluster.task_managers().last().context("no task manager")?;
    cluster.kill_task_manager(victim)?;
    dashboard.says("#state", "RESTARTING").await?;
    dashboard.says("#trouble", &format!("taskmanager-{victim}")).await?;
    dashboard.says(".job-facts", "waiting for").await?;
    dashboard.picture("light-restarting").await?;
    cluster.start_task_manager().await?;
    dashboard.says("#state", "RUNNING").await?;
    dashboard.says("#trouble", "Recovered after").await?;
    dashboard.says("#attempt", "2").await?;
    dashboard.click("#trouble a").await?;
    dashboard.says("#first-fault", &format!("taskmanager-{victim}")).await
}

async fn save(dashboard: &Dashboard, cluster: &Cluster) -> Result<()> {
    let directory = cluster.folder().join("savepoints");
    dashboard.click("#savepoint").await?;
    dashboard.browser.write("dialog input[name=directory]", &directory.display().to_string()).await?;
    dashboard.picture("light-dialog").await?;
    dashboard.click("dialog button[type=submit]").await?;
    dashboard.says("dialog #saved", "savepoint-").await?;
    let made = std::fs::read_dir(&directory)?.next().context("no savepoint")??.path();
    ensure!(made.join("_metadata").is_file(), "there is no savepoint at {}", made.display());
    dashboard.click("dialog button[type=button]").await?;
    dashboard.browser.press("[").await?;
    dashboard.says(".tabs a[aria-current]", "Checkpoints").await?;
    dashboard.says("[aria-label=Savepoints]", &directory.display().to_string()).await
}

/// Every view, light and dark; a picture of each.
async fn look_at_everything(dashboard: &Dashboard, job: JobId) -> Result<()> {
    for theme in ["light", "dark"] {
        dashboard.browser.press("t").await?;
        for (view, words) in VIEWS {
            dashboard.go(&format!("#/jobs/{job}/{view}")).await?;
            dashboard.says(&format!("[data-key={view}]"), words).await?;
            dashboard.picture(&format!("{theme}-{view}")).await?;
        }
        for (page, words) in [("", "unbounded_counter"), ("managers", "127.0.0.1"), ("settings", "rest.port")]
        {
            dashboard.go(&format!("#/{page}")).await?;
            dashboard.says("main", words).await?;
            dashboard.picture(&format!("{theme}-{}", if page.is_empty() { "jobs" } else { page })).await?;
        }
    }
    dashboard.browser.press("?").await?;
    dashboard.says("dialog", "next row").await?;
    dashboard.picture("dark-keys").await?;
    dashboard.click("dialog button").await
}

async fn cancel(dashboard: &Dashboard, cluster: &Cluster, job: JobId) -> Result<()> {
    dashboard.browser.press("gj").await?;
    dashboard.says("main", "unbounded_counter").await?;
    // By keys to the row of the job, and into it.
    dashboard.browser.press(&format!("j{ENTER}")).await?;
    dashboard.click("#cancel").await?;
    dashboard.says("dialog", "The job ends at once").await?;
    dashboard.click("dialog button[type=submit]").await?;
    dashboard.says("#state", "CANCELED").await?;
    cluster.reaches(job, JobStatus::Canceled).await
}

/// The page says that nobody answers, keeps what it knows, and goes on by itself.
async fn lose_the_job_manager(dashboard: &Dashboard, cluster: &mut Cluster) -> Result<()> {
    cluster.kill_job_manager(1)?;
    dashboard.says("#banner", "Connection lost, retrying").await?;
    dashboard.says("#state", "CANCELED").await?;
    dashboard.picture("dark-lost").await?;
    cluster.start_job_manager(1)?;
    cluster.job_manager_ready(1).await?;
    dashboard.says("#connection", "live").await?;
    dashboard.says("#state", "CANCELED").await
}
