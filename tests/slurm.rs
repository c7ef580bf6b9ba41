//! A sweep on a real Slurm cluster: two nodes on this machine, with their own configuration in a temporary folder. Its
//! packages are slurmctld, slurmd, slurm-client and munge; without them, or without the rights to start them, the test
//! is skipped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;

const TOOLS: [&str; 8] = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo"];
const PATIENCE: Duration = Duration::from_secs(120);

/// The daemons of a cluster; they end with it.
struct Slurm {
    dir: tempfile::TempDir,
    daemons: Vec<(&'static str, Child)>,
}

impl Slurm {
    /// Starts it, or says why it can't be.
    fn start() -> Result<Self, String> {
        if let Some(absent) = TOOLS.iter().find(|tool| find(tool).is_none()) {
            return Err(format!("{absent} is not installed"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err("a cluster's daemons need root".into());
        }
        let dir = tempfile::tempdir().unwrap();
        // Munge refuses a socket that others can't reach.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut slurm = Self { dir, daemons: Vec::new() };
        slurm.write_config();
        let at = |name: &str| slurm.dir.path().join(name).display().to_string();
        let munge = ["key-file", "socket", "pid-file", "log-file", "seed-file"]
            .map(|file| format!("--{file}={}", at(&format!("munge.{file}"))));
        slurm.daemon("munged", &[&["--foreground".to_owned()][..], &munge].concat());
        slurm.wait_for("munged", |slurm| slurm.dir.path().join("munge.socket").exists())?;
        slurm.daemon("slurmctld", &["-D".into()]);
        slurm.daemon("slurmd", &["-D".into(), "-N".into(), "n1".into()]);
        slurm.daemon("slurmd", &["-D".into(), "-N".into(), "n2".into()]);
        slurm.wait_for("two idle nodes", |slurm| {
            let nodes = slurm.run("sinfo", &["--noheader", "--Node", "--format=%T"]);
            String::from_utf8_lossy(&nodes.stdout).lines().filter(|state| *state == "idle").count() == 2
        })?;
        Ok(slurm)
    }

    fn write_config(&self) {
        let dir = self.dir.path();
        let key: Vec<u8> = (0..64).collect();
        fs::write(dir.join("munge.key-file"), key).unwrap();
        fs::set_permissions(dir.join("munge.key-file"), fs::Permissions::from_mode(0o400)).unwrap();
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [control, n1, n2] = sockets.map(|socket| socket.local_addr().unwrap().port());
        let d = dir.display();
        let node = |name: &str, port: u16| {
            format!(
                "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=100 Gres=gpu:1\n"
            )
        };
        // cred_expire is also how long a requeued job waits.
        let config = format!(
            "ClusterName=test\nSlurmctldHost=localhost\nSlurmctldPort={control}\nSlurmUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={d}/munge.socket,cred_expire=5\n\
             CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\nProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nMpiDefault=none\n\
             JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
             SlurmctldPidFile={d}/slurmctld.pid\nSlurmdPidFile={d}/slurmd-%n.pid\nStateSaveLocation={d}/state\n\
             SlurmdSpoolDir={d}/spool-%n\nGresTypes=gpu\n{}{}PartitionName=main Nodes=ALL Default=YES State=UP\n",
            node("n1", n1),
            node("n2", n2)
        );
        fs::write(dir.join("slurm.conf"), config).unwrap();
        fs::write(dir.join("gres.conf"), "NodeName=n[1-2] Name=gpu File=/dev/null\n").unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("slurm.conf")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.output"))
    }

    fn daemon(&mut self, name: &'static str, arguments: &[String]) {
        let log = File::options().create(true).append(true).open(self.log(name)).unwrap();
        let mut command = Command::new(find(name).unwrap());
        command.args(arguments).env("SLURM_CONF", self.config()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemons.push((name, command.spawn().unwrap()));
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        Command::new(find(tool).unwrap()).args(arguments).env("SLURM_CONF", self.config()).output().unwrap()
    }

    /// Waits until the cluster is so; with what its daemons said if it is not in time.
    fn wait_for(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let started = Instant::now();
        while !so(self) {
            let ended = self.daemons.iter_mut().find_map(|(name, child)| child.try_wait().unwrap().map(|_| *name));
            if ended.is_some() || started.elapsed() > Duration::from_secs(30) {
                let name = ended.unwrap_or("slurmctld");
                let said = fs::read_to_string(self.log(name)).unwrap_or_default();
                let last = said.lines().last().unwrap_or("nothing").to_owned();
                return Err(format!("no {what}; the last word of {name}: {last}"));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Processes with these variables in their environment, each with its command line.
    fn processes(&self, variables: &[String]) -> Vec<(i32, Vec<String>)> {
        let words = |pid: i32, file: &str| -> Vec<String> {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let ours = format!("SLURM_CONF={}", self.config().display());
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let environment = words(*pid, "environ");
            environment.contains(&ours) && variables.iter().all(|variable| environment.contains(variable))
        })
        .map(|pid| (pid, words(pid, "cmdline")))
        .collect()
    }

    /// Those of a node's jobs.
    fn jobs(&self, node: &str) -> Vec<(i32, Vec<String>)> {
        self.processes(&[format!("SLURMD_NODENAME={node}")])
    }

    /// The run directory that a node trains right now.
    fn trains(&self, node: &str) -> Option<PathBuf> {
        self.jobs(node).iter().find_map(|(_, words)| {
            let resume = words.iter().position(|word| word == "--resume")?;
            words.get(resume + 1).map(PathBuf::from)
        })
    }

    /// What a power cut does to the node `n1`.
    fn kill_n1(&mut self) {
        let n1 = self.daemons.iter().position(|(name, _)| *name == "slurmd").unwrap();
        let (_, mut daemon) = self.daemons.remove(n1);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let processes = self.jobs("n1");
        for (pid, _) in &processes {
            // The batch script's parent is the node's step daemon, which must not report its end.
            if let Some(parent) = parent_of(*pid)
                && fs::read_to_string(format!("/proc/{parent}/cmdline")).is_ok_and(|line| line.contains("slurmstepd"))
            {
                kill(parent);
            }
        }
        processes.iter().for_each(|(pid, _)| kill(*pid));
        // The controller would notice after some time of silence.
        let said = self.run("scontrol", &["update", "NodeName=n1", "State=DOWN", "Reason=killed"]);
        assert!(said.status.success(), "{said:?}");
    }

    fn sweep(&self, file: &Path, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotfire"));
        command.arg("sweep").arg(file).arg("--out").arg(out).args(["--launcher", "slurm"]);
        command.env("SLURM_CONF", self.config()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for (_, daemon) in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Jobs, their step daemons, and sweeps of a test that failed.
        self.processes(&[]).iter().for_each(|(pid, _)| kill(*pid));
    }
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders.map(|folder| folder.join(tool)).find(|path| path.is_file())
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Name, state, worker, number of failures and error of each trial, in order.
type Row = (String, String, Option<String>, u32, Option<String>);

fn trials(out: &Path) -> Vec<Row> {
    let Ok(connection) = Connection::open_with_flags(
        out.join("sweep.sqlite"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    ) else {
        return Vec::new();
    };
    let query = "SELECT substr(run_dir, 8), state, worker, failures, error FROM trials ORDER BY run_dir";
    // The tables may not be there yet.
    let Ok(mut query) = connection.prepare(query) else { return Vec::new() };
    let rows =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The sweep command is killed, then interrupted, a node dies, one trial fails once and one always: no trial is lost,
/// none is run twice.
#[test]
fn a_sweep_outlives_its_command_and_a_node() {
    let mut slurm = match Slurm::start() {
        Ok(slurm) => slurm,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let base = fs::canonicalize("configs/ppo-cartpole-cleanrl.toml").unwrap();
    let file = dir.path().join("sweep.toml");
    let text = format!(
        "base = {base:?}\nobjective = \"eval.mean\"\ndirection = \"maximize\"\nseeds = [1, 2]\n[overrides]\n\
         train.steps = 65536\ntrain.eval_interval = 0\ntrain.log_interval = 0\ntrain.checkpoint_interval = 1024\n\
         train.final_eval_episodes = 5\n[search]\nretries = 1\n[space]\nagent.gamma = {{ values = [0.9, 0.98, 0.99] }}\n\
         [slurm]\npartition = \"main\"\ncpus_per_task = 1\ngpus_per_task = 1\nmem = \"50M\"\ntime = \"10\"\nsetup = [\n\
         'echo \"node $SLURMD_NODENAME, GPU $CUDA_VISIBLE_DEVICES, restart ${{SLURM_RESTART_COUNT:-0}}\"',\n\
         'case \"$run\" in *0002-s1) echo \"error: no such module\"; exit 3;; esac',\n\
         'case \"$run\" in *0002-s2) [ -e \"$run/tried\" ] || {{ touch \"$run/tried\"; exit 4; }};; esac',\n]\n"
    );
    fs::write(&file, text).unwrap();
    // Names with spaces must survive the script.
    let out = dir.path().join("a sweep");

    let mut killed = slurm.sweep(&file, &out).spawn().unwrap();
    let submitted = |row: &Row| row.2.as_ref().is_some_and(|worker| worker.starts_with("slurm:"));
    eventually("six trials in the queue", || trials(&out).iter().filter(|row| submitted(row)).count() == 6);
    killed.kill().unwrap();
    killed.wait().unwrap();

    let sweep = slurm.sweep(&file, &out).spawn().unwrap();
    let mut victim = PathBuf::new();
    eventually("a trial with a checkpoint on n1", || {
        victim = slurm.trains("n1").unwrap_or_default();
        fs::read_dir(victim.join("checkpoints")).is_ok_and(|mut checkpoints| checkpoints.next().is_some())
    });
    slurm.kill_n1();
    assert!(!victim.join("summary.json").exists(), "the trial was over before its node was killed");

    let pid = rustix::process::Pid::from_raw(i32::try_from(sweep.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let left = sweep.wait_with_output().unwrap();
    assert_eq!(left.status.signal(), Some(2), "a shell's loop would go on: {left:?}");
    let said = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(said.contains("the jobs run on; the same command picks them up"), "{said}");
    let queue = slurm.run("squeue", &["--noheader", "--array"]);
    assert!(!queue.stdout.is_empty(), "no job was left in the queue: {:?}", trials(&out));

    let done = slurm.sweep(&file, &out).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("error: 1 of 6 trials failed"), "{done:?}");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("5 of 6 trials finished, 1 failed"), "{said}");
    for (name, state, worker, failures, error) in trials(&out) {
        let run = out.join("trials").join(&name);
        let log = read(&run.join("log.txt"));
        let error = error.unwrap_or_default();
        assert_eq!(worker, None, "{name}");
        assert!(log.starts_with("node n") && log.contains("GPU 0, restart 0"), "{name}: {log}");
        if name == "0002-s1" {
            assert_eq!((state.as_str(), failures), ("failed", 2), "{error}");
            assert_eq!(error, "exit status: 3: error: no such module");
            continue;
        }
        assert_eq!((state.as_str(), failures), ("finished", u32::from(name == "0002-s2")), "{name}: {error}");
        let records = read(&run.join("metrics.jsonl"));
        let is_events = |name: &str| name.starts_with("events.out.tfevents.");
        let files = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name());
        let starts = files.filter(|name| is_events(&name.to_string_lossy())).count();
        assert_eq!(starts, if run == victim { 2 } else { 1 }, "starts of {name}");
        let steps: Vec<&str> = records.lines().filter_map(|line| line.split(',').next()).collect();
        assert_eq!(steps.len(), 128 + 1, "{name} did each of its iterations once, and an evaluation");
    }
    let log = read(&victim.join("log.txt"));
    assert!(log.contains("node n1") && log.contains("node n2, GPU 0, restart 1"), "{log}");
}
