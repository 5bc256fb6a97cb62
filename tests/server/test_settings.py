"""Settings from flags, the environment and a file; what is wrong is one sentence."""

import pytest

from diffusion_engine.server.settings import KEYS, Settings

KEY = "a-key-of-tests-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without the variables of whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith("DIFFUSION_ENGINE_") and not name.endswith(("CACHE", "DEBUG", "NVTX")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_flags_go_before_the_environment_before_the_file(tmp_path, environment):
    file = tmp_path / "server.toml"
    file.write_text('port = 1\ncapacity = 1\nmax_queue = 1\nmodels = ["digits", "mine=a:b"]\n')
    environment.setenv("DIFFUSION_ENGINE_CAPACITY", "2")
    environment.setenv("DIFFUSION_ENGINE_MAX_QUEUE", "2")
    made = Settings.read(file, {"max_queue": 3})
    assert (made.port, made.capacity, made.max_queue) == (1, 2, 3)
    assert made.models == {"digits": "digits", "mine": "a:b"} and made.model == "digits"


def test_lists_are_texts_with_commas_in_the_environment(environment):
    environment.setenv(
        "DIFFUSION_ENGINE_MODELS", "digits, big = /models/big.safetensors".replace(" = ", "=")
    )
    environment.setenv("DIFFUSION_ENGINE_DEVICES", "cuda:0,cuda:1")
    environment.setenv("DIFFUSION_ENGINE_THREADS", "4")
    environment.setenv("DIFFUSION_ENGINE_KEY", KEY)
    made = Settings.read()
    assert made.models == {"digits": "digits", "big": "/models/big.safetensors"}
    assert made.devices == ["cuda:0", "cuda:1"] and made.threads == 4
    assert made.secrets == (KEY.encode(),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "unknown prot; did you mean port?"),
        ("zzz = 1", "unknown zzz; there are host, port"),
        ("port = 70000", "port=70000"),
        ('port = "many"', "port='many'"),
        ("port = true", "port=True"),
        ('host = "0.0.0.0"', "give a key"),
        ('host = "example.org"', "give a key"),
        ('key = "short"', KEYS),
        ('key_file = "/nowhere/keys"', "cannot be read"),
        ("models = {}", "names none"),
        ('models = ["a/b.safetensors"]', "needs a name"),
        ('models = ["digits", "digits=other"]', "two are called 'digits'"),
        ('models = { "a b" = "digits" }', "a name is letters"),
        ('default_model = "digit"', "did you mean digits?"),
        ('labels = { digit = ["a"] }', "did you mean digits?"),
        ("threads = 0", "threads=0"),
        ('threads = "some"', "threads"),
        ('executor = "fast"', "executor='fast'"),
        ("drain = -1", "drain=-1"),
        ("drain = nan", "drain=nan"),
        ("max_body = 0", "max_body=0"),
        ("port = ", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ValueError) as refused:
        Settings.read(file)
    assert said in str(refused.value) and "pydantic" not in str(refused.value)


def test_an_unknown_variable_is_named(environment):
    environment.setenv("DIFFUSION_ENGINE_PROT", "1")
    with pytest.raises(ValueError, match="DIFFUSION_ENGINE_PROT; did you mean port"):
        Settings.read()


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        Settings.read(tmp_path / "none.toml")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_needs_no_key(host):
    assert Settings(host=host).local and not Settings(host=host).secrets


def test_a_socket_needs_no_key_and_an_address_does(tmp_path):
    assert Settings(host="0.0.0.0", uds=tmp_path / "s").local
    assert not Settings(host="0.0.0.0", key=KEY).local


def test_keys_of_a_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n\n  another-{KEY}\n")
    assert Settings(key_file=file).secrets == (KEY.encode(), f"another-{KEY}".encode())
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no key"):
        Settings(key_file=file)


def test_all_settings_are_printed_and_read_again_without_the_key(tmp_path):
    file = tmp_path / "keys"
    file.write_text(KEY)
    made = Settings(key=KEY, key_file=file, labels={"digits": ['"', "zwei\n"]}, threads="measured")
    text = made.to_toml()
    assert KEY not in text and KEY not in repr(made)
    written = tmp_path / "again.toml"
    written.write_text(text)
    assert Settings.read(written, {"key": KEY}) == made


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())
