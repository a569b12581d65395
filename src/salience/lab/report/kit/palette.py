"""The two themes. Figures are drawn in the light one; on the page each colour becomes a CSS variable."""

#: role -> its colour in the light theme and in the dark one
_COLOURS = {
    "page": ("#f6f5f1", "#101216"),
    "surface": ("#fefefd", "#181b21"),
    "ink": ("#191b1f", "#eceef2"),
    "muted": ("#5a5f68", "#a6adb9"),
    "line": ("#d9d7d0", "#363c47"),
    "grid": ("#e9e7e1", "#292e37"),
    "accent": ("#1d58c8", "#86b4ff"),
    "good": ("#0c6e50", "#63d3a6"),
    "bad": ("#ae2a1d", "#ff9385"),
    "good-wash": ("#e3f3ec", "#15302a"),
    "bad-wash": ("#fbe9e6", "#3a1f1d"),
    "blue": ("#293ea7", "#3e8df9"),
    "orange": ("#bb520a", "#f28a4c"),
    "green": ("#1f7d53", "#62dea8"),
    "grey": ("#696d76", "#c8cfd6"),
    "purple": ("#8a2be2", "#da9dff"),
    "pink": ("#8a1450", "#f07ab8"),
    "olive": ("#634f00", "#d8c650"),
    "cyan": ("#0b5f78", "#8fdcf2"),
    "stage-encode": ("#40444e", "#797e84"),
    "stage-select": ("#c21e7b", "#ff7dbd"),
    "stage-project": ("#00a1ae", "#23ddec"),
    "stage-prefill": ("#2a56d4", "#5b8ff5"),
    "stage-decode": ("#c8721a", "#f5b057"),
}
LIGHT = {role: light for role, (light, _) in _COLOURS.items()}
DARK = {role: dark for role, (_, dark) in _COLOURS.items()}


def css() -> str:
    """Both themes as CSS variables: dark where the reader's system asks for it or data-theme does, light on paper."""
    dark = _variables(DARK)
    return (
        f":root{{color-scheme:light;{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}"
    )


def _variables(theme: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in theme.items())
