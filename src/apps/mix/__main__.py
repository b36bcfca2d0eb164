"""Mix CLIPs of one network: of two the weights between them, of several their mean (docs/recipes.md).

    python -m src.apps.mix A.pt B.pt --share .5 --to C.pt

A and B are what --clip-model-name or --clip-model-path take: a checkpoint of stage 1, or a CLIP by its name. C is a
checkpoint of stage 1, whose metadata have the digest and the share of each. --clip-model-path takes it.
"""

from argparse import Namespace

from src.base.errors import InputError, repeated
from src.base.files import require_writable
from src.command.frame import one_line_errors
from src.command.parser import Parser, file_path, name_or_file, share


def make_parser() -> Parser:
    parser = Parser("Mix the weights of CLIPs of one network.", __doc__)
    parser.prog = "python -m src.apps.mix"
    help_text = "checkpoint of stage 1 or name of a CLIP; two or more"
    parser.add_argument("clips", type=name_or_file, nargs="+", metavar="CLIP", help=help_text)
    help_text = "share of the second of two, from 0 to 1; without it all have the same"
    parser.add_argument("--share", type=share, metavar="SHARE", help=help_text)
    help_text = "new file that receives the mixture"
    parser.add_argument("--to", type=file_path, required=True, metavar="FILE", help=help_text)
    help_text = "CLIP that the checkpoints are loaded over (default: the one that each says it was trained from)"
    parser.add_argument("--clip-model-name", type=name_or_file, help=help_text)
    return parser


def parse(argv: list[str] | None = None) -> Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if len(args.clips) < 2:
        parser.error("a mixture is of two CLIPs or more")
    if args.share is not None and len(args.clips) > 2:
        parser.error(f"--share is for two CLIPs; of {len(args.clips)} the mean is taken")
    return args


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

from src.apps.mix.mixing import mixture
from src.models.checkpoints import write_checkpoint


@one_line_errors
def main(argv=None):
    args = parse(argv)
    for name in repeated(args.clips):
        raise InputError(f"{name}: is named twice")
    if args.to.exists():
        raise InputError(f"{args.to}: exists; name a new file")
    require_writable(args.to.parent)
    equal = 1 / len(args.clips)
    shares = [equal] * len(args.clips) if args.share is None else [1 - args.share, args.share]
    write_checkpoint(args.to, mixture(args.clips, shares, args.clip_model_name))
    print(f"{args.to}: {', '.join(f'{share:.3g} of {name}' for name, share in zip(args.clips, shares, strict=True))}")


if __name__ == "__main__":
    main()
