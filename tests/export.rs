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
slack = 1e-5 * max(1, np.abs(want).max())
state = example[:, :0]
feeds = {policy["input"]["name"]: np.repeat(example, 5, 0)}
names = [policy["output"]["name"]]
if "state" in policy:
    state = np.array(policy["example"]["state"], np.float32)[None]
    feeds[policy["state"]["input"]] = np.repeat(state, 5, 0)
    names.append(policy["state"]["output"])
got = session.run(names, feeds)
assert got[0].shape == (5, want.shape[1]), got[0].shape
assert np.abs(got[0] - want).max() < slack, (got[0], want)
if "state" in policy:
    assert np.abs(got[1] - np.array(policy["example"]["next_state"], np.float32)).max() < 1e-5

raw = open(folder + "/policy.safetensors", "rb").read()
size = struct.unpack("<Q", raw[:8])[0]
header = json.loads(raw[8:8 + size])
def array(name):
    begin, end = header[name]["data_offsets"]
    return np.frombuffer(raw[8 + size + begin:8 + size + end], np.float32).reshape(header[name]["shape"])
def sigmoid(v):
    return 1 / (1 + np.exp(-v))
activations = {"identity": lambda v: v, "tanh": np.tanh, "relu": lambda v: v.clip(0), "silu": lambda v: v * sigmoid(v),
               "gelu": lambda v: v / 2 * (1 + np.vectorize(math.erf)(v / 2 ** 0.5))}
def run(layers, x):
    for layer in layers:
        kind = layer["type"]
        if kind == "normalize":
            x = ((x - array(layer["mean"])) * array(layer["scale"])).clip(-layer["clip"], layer["clip"])
        elif kind == "dense":
            x = x @ array(layer["weight"]) + array(layer["bias"])
        elif kind == "image":
            x = x.reshape([-1] + layer["shape"])
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "conv":
            w, s = array(layer["weight"]), layer["stride"]
            k = w.shape[2]
            windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::s, ::s]
            x = np.einsum("nchwij,ocij->nohw", windows, w) + array(layer["bias"])[None, :, None, None]
        elif kind == "layer_norm":
            centred = x - x.mean(1, keepdims=True)
            x = centred / np.sqrt((centred ** 2).mean(1, keepdims=True) + layer["epsilon"])
            x = x * array(layer["scale"]) + array(layer["offset"])
        elif kind == "gru":
            xs = np.split(x @ array(layer["input"]) + array(layer["input_bias"]), 3, 1)
            hs = np.split(state @ array(layer["hidden"]) + array(layer["hidden_bias"]), 3, 1)
            r, z = sigmoid(xs[0] + hs[0]), sigmoid(xs[1] + hs[1])
            x = (1 - z) * np.tanh(xs[2] + r * hs[2]) + z * state
        elif kind == "dueling":
            value, advantage = run(layer["value"], x), run(layer["advantage"], x)
            advantage = advantage.reshape(len(x), layer["actions"], -1)
            x = (value[:, None] + advantage - advantage.mean(1, keepdims=True)).reshape(len(x), -1)
        elif kind == "expectation":
            values = array(layer["values"])
            x = x.reshape(len(x), -1, len(values))
            if layer["softmax"]:
                x = np.exp(x - x.max(2, keepdims=True))
                x = x / x.sum(2, keepdims=True)
            x = x @ values
        elif kind == "squash":
            low, high = array(layer["low"]), array(layer["high"])
            x = low + (np.tanh(x[:, :len(low)]) + 1) / 2 * (high - low)
        else:
            raise SystemExit("unknown layer " + kind)
        x = activations[layer.get("activation", "identity")](x)
    return x
x = run(policy["layers"], example)
assert np.abs(x - want).max() < slack, (x, want)
"#;

const OFF_POLICY: &[&str] = &["train.steps=400", "agent.learning_starts=200", "agent.replay_capacity=1000"];

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
        ("ppo-cartpole", &["train.steps=512", "agent.recurrent=\"gru\""]),
        ("dqn-cartpole", OFF_POLICY),
        ("c51-cartpole", OFF_POLICY),
        ("qrdqn-acrobot", OFF_POLICY),
        ("rainbow-cartpole", OFF_POLICY),
        ("pqn-cartpole", &["train.steps=2048"]),
        ("pqn-minatar-breakout", &["train.steps=512", "env.num_envs=4", "agent.minibatches=4"]),
        ("sac-pendulum", OFF_POLICY),
        ("sac-cartpole", OFF_POLICY),
        ("td3-pendulum", OFF_POLICY),
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
