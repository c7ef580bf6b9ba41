//! An exported policy gives the same output in ONNX Runtime. Needs Python with `onnxruntime`; skipped without it.

use std::path::Path;
use std::process::Command;

/// Runs the ONNX model, and the layers of the JSON with the arrays of the safetensors file, on the example.
const CHECK: &str = r#"
import json, math, struct, sys
import numpy as np, onnxruntime
folder = sys.argv[1]
policy = json.load(open(folder + "/policy.json"))
example = np.array(policy["example"]["input"], np.float32)[None]
want = np.array(policy["example"]["output"], np.float32)[None]
session = onnxruntime.InferenceSession(folder + "/policy.onnx", providers=["CPUExecutionProvider"])
rows = np.repeat(example, 5, 0)
got = session.run([policy["output"]["name"]], {policy["input"]["name"]: rows})[0]
assert got.shape == (5, want.shape[1]), got.shape
assert np.abs(got - want).max() < 1e-5, (got, want)

raw = open(folder + "/policy.safetensors", "rb").read()
size = struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:8 + size])
def array(name):
    begin, end = header[name]["data_offsets"]
    return np.frombuffer(raw[8 + size + begin:8 + size + end], np.float32).reshape(header[name]["shape"])
x = example
for layer in policy["layers"]:
    if layer["type"] == "normalize":
        x = ((x - array(layer["mean"])) * array(layer["scale"])).clip(-layer["clip"], layer["clip"])
    elif layer["type"] == "dense":
        x = x @ array(layer["weight"]) + array(layer["bias"])
    elif layer["type"] == "image":
        x = x.reshape([-1] + layer["shape"])
    elif layer["type"] == "flatten":
        x = x.reshape(len(x), -1)
    elif layer["type"] == "conv":
        w, s = array(layer["weight"]), layer["stride"]
        k = w.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::s, ::s]
        x = np.einsum("nchwij,ocij->nohw", windows, w) + array(layer["bias"])[None, :, None, None]
    activation = layer.get("activation", "identity")
    x = {"identity": lambda v: v, "tanh": np.tanh, "relu": lambda v: v.clip(0),
         "silu": lambda v: v / (1 + np.exp(-v)),
         "gelu": lambda v: v / 2 * (1 + np.vectorize(math.erf)(v / 2 ** 0.5))}[activation](x)
assert np.abs(x - want).max() < 1e-5, (x, want)
"#;

#[test]
fn an_exported_policy_is_the_same_in_onnx_runtime() {
    let python = std::env::var("HOTFIRE_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = |args: &[&str]| Command::new(&python).args(args).output();
    if !run(&["-c", "import numpy, onnxruntime"]).is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no onnxruntime (set HOTFIRE_PYTHON to one that has)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hotfire = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hotfire")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (config, overrides) in [
        ("ppo-acrobot", &["train.steps=4096", "agent.activation=\"silu\""][..]),
        ("ppo-pendulum", &["train.steps=4096"]),
        ("a2c-cartpole", &["train.steps=1024", "agent.activation=\"gelu\""]),
        ("ppo-minatar-breakout", &["train.steps=512", "env.num_envs=4", "agent.minibatches=4"]),
    ] {
        let (name, parent) = (format!("run.name={config}"), format!("run.dir={}", dir.path().display()));
        let file = format!("configs/{config}.toml");
        let common = ["train", &file, "--quiet", &name, &parent, "train.eval_interval=0"];
        hotfire(&[&common[..], &["train.final_eval_episodes=1", "train.checkpoint_interval=0"], overrides].concat());
        let out = dir.path().join(format!("{config}-policy"));
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        hotfire(&["export", &path(&dir.path().join(config)), "--out", &path(&out)]);
        let check = run(&["-c", CHECK, &path(&out)]).unwrap();
        assert!(check.status.success(), "{config}: {}", String::from_utf8_lossy(&check.stderr));
    }
}
