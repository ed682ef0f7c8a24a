"""What one network sees in a video, at a budget or at a configuration of your choice.

python tools/predict.py --model out/adaptive.pyth --video clip.mp4 --gflops 2.0
python tools/predict.py --model out/adaptive.pyth --video clip.mp4 --config 0.8-160-9
"""

import argparse

import mutual3d
from mutual3d.deploy import predict_video
from mutual3d.evaluation.grid import count_costs
from mutual3d.utils.command_line import run_command


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the adaptive.pyth of a run")
    parser.add_argument("--video", required=True, nargs="+", help="one or more video files")
    parser.add_argument("--config", help="width-pixels-frames, for example 0.8-160-9")
    parser.add_argument("--gflops", type=float, help="most GFLOPs a view may cost")
    parser.add_argument("--latency-ms", type=float, help="most milliseconds a clip may take")
    parser.add_argument("--device-key", help="whose latency: a key of the table, such as cpu-fp32-b1-t2")
    parser.add_argument("--views", type=int, default=1, help="clips spread over the video, averaged (default 1)")
    parser.add_argument("--top", type=int, default=5, help="classes to print (default 5)")
    parser.add_argument("--backend", default="pyav", help="pyav or decord")
    parsed = parser.parse_args(arguments)
    if parsed.config and (parsed.gflops or parsed.latency_ms):
        parser.error("give --config or a budget, not both")
    return parsed


def choose(model, options):
    """Activate what the options ask for: a configuration, a budget, or the largest."""
    if options.gflops is not None or options.latency_ms is not None:
        model.set_budget(gflops=options.gflops, latency_ms=options.latency_ms, device=options.device_key)
    elif options.config:
        model.activate(options.config)


def describe_active(model):
    cost = count_costs(model.network, [model.active], model.preprocessing.crop)[model.active]
    return f"configuration {model.active}, {cost.gflops:.4g} GFLOPs a view, {cost.parameters:,} parameters"


def main(arguments=None):
    options = parse(arguments)
    model = mutual3d.load(options.model)
    choose(model, options)
    description = describe_active(model)
    for path in options.video:
        prediction = predict_video(model, path, num_views=options.views, backend=options.backend)
        print(f"{path}: {description}")
        for name, probability in prediction.top(options.top, model.class_names):
            print(f"  {100 * probability:5.1f} %  {name}")
        times = f"decoding {prediction.decode_ms:.0f} ms, network {prediction.network_ms:.0f} ms"
        print(f"  {times} ({options.views} view(s))")


if __name__ == "__main__":
    run_command(main)
