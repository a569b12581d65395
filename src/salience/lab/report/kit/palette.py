"""The two themes. Figures are drawn in the light one; on the page each colour becomes a CSS variable."""

LIGHT = {
    "page": "#f6f5f1",
    "surface": "#fefefd",
    "ink": "#191b1f",
    "muted": "#5a5f68",
    "line": "#d9d7d0",
    "grid": "#e9e7e1",
    "accent": "#1d58c8",
    "good": "#0c6e50",
    "bad": "#ae2a1d",
    "good-wash": "#e3f3ec",
    "bad-wash": "#fbe9e6",
    "blue": "#293ea7",
    "orange": "#bb520a",
    "green": "#1f7d53",
    "grey": "#696d76",
    "purple": "#8a2be2",
    "pink": "#8a1450",
    "olive": "#634f00",
    "cyan": "#0b5f78",
    "stage-encode": "#40444e",
    "stage-select": "#c21e7b",
    "stage-project": "#00a1ae",
    "stage-prefill": "#2a56d4",
    "stage-decode": "#c8721a",
}
DARK = {
    "page": "#101216",
    "surface": "#181b21",
    "ink": "#eceef2",
    "muted": "#a6adb9",
    "line": "#363c47",
    "grid": "#292e37",
    "accent": "#86b4ff",
    "good": "#63d3a6",
    "bad": "#ff9385",
    "good-wash": "#15302a",
    "bad-wash": "#3a1f1d",
    "blue": "#3e8df9",
    "orange": "#f28a4c",
    "green": "#62dea8",
    "grey": "#c8cfd6",
    "purple": "#da9dff",
    "pink": "#f07ab8",
    "olive": "#d8c650",
    "cyan": "#8fdcf2",
    "stage-encode": "#797e84",
    "stage-select": "#ff7dbd",
    "stage-project": "#23ddec",
    "stage-prefill": "#5b8ff5",
    "stage-decode": "#f5b057",
}


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
