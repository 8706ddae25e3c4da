"""`monai-sr federated`: hospitals train a bundle together, images stay home."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from monai_sr_bundle.cli.options import add_progress_option, positive_count
from monai_sr_bundle.cli.progress_bar import progress_bar
from monai_sr_bundle.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `monai-sr federated`."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, summary, add_subcommand in (
        ("simulate", "train a study with all its sites on this machine, and compare", _add_simulate),
        ("provision", "make the start-up kits of a federation", _add_provision),
        ("join", "check everything at a hospital, or at the server, and start", _add_join),
        ("stats", "compare what the images of all hospitals are like", _add_stats),
        ("submit", "run a study on a federation", _add_submit),
        ("stop", "stop a kit of this machine", _add_stop),
        ("leave", "end a study at a hospital, or a hospital's part in it", _add_leave),
        ("evaluate", "measure a global model on the images of one site", _add_evaluate),
        ("privacy", "measure what differential privacy costs a study, for several noises", _add_privacy),
        ("calibrate", "make error bars hold for all sites", _add_calibrate),
        ("export", "make a bundle of a global model", _add_export),
    ):
        add_subcommand(commands.add_parser(name, help=summary))


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    _add_simulation_options(parser, "folder for models and table; a killed run goes on there")
    parser.set_defaults(run=_run_simulate)


def _add_simulation_options(parser: argparse.ArgumentParser, out_help: str) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of a study (docs/federated.md)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the prepared data sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out_help)
    parser.add_argument(
        "--sites", type=int, metavar="N", help="number of sites that share the patients, if the study names none"
    )
    parser.add_argument("--quick", action="store_true", help="60 iterations a site: shows that it runs, and no more")
    add_progress_option(parser)


def _run_simulate(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.simulation import simulate

    with progress_bar(options.study, "part", enabled=options.progress == "bar") as progress:
        table = simulate(
            options.study, options.data, options.out, sites=options.sites, quick=options.quick, progress=progress
        )
    print(table)
    return 0


def _add_provision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "project", type=Path, metavar="FILE", help="participants; begin with configs/federated/policy/project.yaml"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the kits and their authority"
    )
    parser.set_defaults(run=_run_provision)


def _run_provision(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.startup_kits import provision

    kits = provision(options.project, options.out)
    print(f"kits, one zip file for each participant: {kits.folder}")
    for name in kits.own_keys:
        print(f"{name} makes its own key: send it {kits.folder.parent / f'{name}.participant.yaml'}")
    print(f"fingerprint, to be told by telephone: {kits.fingerprint}")
    print(f"root certificate until {kits.root_expires:%Y-%m-%d}, first kit until {kits.kits_expire:%Y-%m-%d}")
    print(f"whoever reads {kits.folder.parent} can admit participants: keep it closed, and keep a backup")
    return 0


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kit", type=Path, metavar="KIT", help="zip file from the coordinator, or a kit that is here already"
    )
    parser.add_argument(
        "--fingerprint", required=True, metavar="SHA256", help="as the coordinator said on the telephone"
    )
    parser.add_argument("--study", metavar="STUDY", help="name or YAML file of the study; not at the server")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the prepared images; not at the server")
    parser.add_argument(
        "--folder", type=Path, default=Path("federated"), metavar="DIR", help="for kits (default federated)"
    )
    parser.add_argument("--request", type=Path, metavar="DIR", help="folder of the own key, for a NAME.signed.zip")
    parser.add_argument("--policy", type=Path, metavar="DIR", help="a stricter policy of your own")
    parser.add_argument(
        "--budget", type=float, nargs=2, metavar=("EPSILON", "DELTA"), help="of differential privacy, over all studies"
    )
    parser.set_defaults(run=_run_join)


def _run_join(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.join import join
    from monai_sr_bundle.federated.study import read_study

    join(
        options.kit,
        options.folder,
        options.fingerprint,
        study=read_study(options.study) if options.study else None,
        data=options.data,
        request=options.request,
        policy=options.policy,
        budget=tuple(options.budget) if options.budget else None,
    )
    return 0


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--admin", type=Path, required=True, metavar="KIT", help="folder of the coordinator's kit")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for the histograms")
    parser.set_defaults(run=_run_stats)


def _run_stats(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.site_statistics import collect_statistics, describe_statistics
    from monai_sr_bundle.federated.study import read_study
    from monai_sr_bundle.federated.submit import open_session

    study = read_study(options.study)
    with open_session(options.admin) as session:
        print(describe_statistics(collect_statistics(session, study.task.bundle, options.out)))
    return 0


def _add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--admin", type=Path, required=True, metavar="KIT", help="folder of the coordinator's kit")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for model and record")
    parser.add_argument(
        "--rounds-a-job", type=positive_count, default=10, metavar="N", help="rounds of one job (default 10)"
    )
    parser.add_argument(
        "--continue",
        dest="continued",
        type=Path,
        metavar="DIR",
        help="go on from the model and record in a folder: --out, or JOB/app_server of a server that died",
    )
    parser.set_defaults(run=_run_submit)


def _run_submit(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.study import read_study
    from monai_sr_bundle.federated.submit import describe_rounds, open_session, run_study

    study = read_study(options.study)
    with open_session(options.admin) as session:
        end = run_study(
            session,
            study,
            options.out,
            rounds_a_job=options.rounds_a_job,
            continued=options.continued,
            report=partial(print, flush=True),  # a study takes hours, and its lines may go to a file
        )
    print(describe_rounds(end.rounds))
    print(f"global model: {end.model}")
    print(f"make a bundle of it: monai-sr federated export {options.study} --model {end.model} --out DIR")
    return 0


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", type=Path, metavar="KIT", help="folder of the kit, as `join` printed it")
    parser.set_defaults(run=_run_stop)


def _run_stop(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.join import stop

    stop(options.kit)
    print(f"{options.kit} is stopped; `monai-sr federated join {options.kit} ...` starts it again")
    return 0


def _add_leave(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "kit", type=Path, nargs="?", metavar="KIT", help="at the hospital: folder of its kit, to be removed"
    )
    what.add_argument("--revoke", metavar="SITE", help="at the coordinator: hospital that the server shall refuse")
    parser.add_argument("--admin", type=Path, metavar="KIT", help="folder of the coordinator's kit, with --revoke")
    parser.set_defaults(run=_run_leave)


def _run_leave(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.leave import leave, revoke
    from monai_sr_bundle.federated.submit import open_session

    if options.revoke:
        if options.admin is None:
            raise InputError("--revoke needs the coordinator's kit: pass it with --admin.")
        with open_session(options.admin) as session:
            remains = revoke(session, options.revoke)
    else:
        remains = leave(options.kit)
    print("\n".join(remains))
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="the job's FL_global_model.pt")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the site's prepared images")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default test")
    parser.add_argument("--operator", metavar="NAME", help="degradation of the images (default: the bundle's)")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.measurement import evaluate

    print(evaluate(options.study, options.model, options.data, split=options.split, operator=options.operator))
    return 0


def _add_privacy(parser: argparse.ArgumentParser) -> None:
    _add_simulation_options(parser, "new folder for models and figures")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.5, 1.0, 2.0], metavar="N", help="multipliers (default 0.5 1 2)"
    )
    parser.set_defaults(run=_run_privacy)


def _run_privacy(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.privacy_curve import draw_privacy_curve

    with progress_bar(options.study, "model", enabled=options.progress == "bar") as progress:
        table = draw_privacy_curve(
            options.study,
            options.data,
            options.out,
            options.noise,
            sites=options.sites,
            quick=options.quick,
            progress=progress,
        )
    print(table)
    return 0


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of a bundle with error bars, installed at all sites")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--data", type=Path, metavar="DIR", help="simulate sites that share these prepared images")
    group.add_argument("--admin", type=Path, metavar="KIT", help="folder of a coordinator's kit: at its federation")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the results")
    parser.add_argument(
        "--sites",
        type=positive_count,
        default=3,
        metavar="N",
        help="sites to simulate, or that have to answer (default 3)",
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="val", help="split of the sites (default val)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="share of pixels that may lie outside their error bar (default 0.1)"
    )
    parser.add_argument("--limit", type=positive_count, metavar="N", help="use N images of each site, evenly spread")
    parser.set_defaults(run=_run_calibrate)


def _run_calibrate(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.site_calibration import calibrate_federation, simulate_calibration
    from monai_sr_bundle.federated.submit import open_session

    choices = {"sites": options.sites, "split": options.split, "alpha": options.alpha, "limit": options.limit}
    if options.data is not None:
        print(simulate_calibration(options.name, options.data, options.out, **choices))
        return 0
    with open_session(options.admin) as session:
        print(calibrate_federation(session, options.name, options.out, **choices))
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="the job's FL_global_model.pt, with rounds.json beside",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the bundle")
    parser.set_defaults(run=_run_export)


def _run_export(options: argparse.Namespace) -> int:
    from monai_sr_bundle.federated.export import export

    for line in export(options.study, options.model, options.out):
        print(line)
    return 0
