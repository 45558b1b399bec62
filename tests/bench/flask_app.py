"""A plain Flask app around a function, as `beside` has gunicorn serve it."""

import importlib
import sys

import flask


def make(folder: str) -> flask.Flask:
    """The app of a function that was unpacked to a folder: POST / has its arguments as JSON."""
    sys.path.insert(0, folder)
    main = importlib.import_module("main").main
    app = flask.Flask(__name__)

    def execute() -> flask.Response:
        return flask.jsonify(output=main(**flask.request.get_json()))

    app.add_url_rule("/", view_func=execute, methods=["POST"])
    return app
