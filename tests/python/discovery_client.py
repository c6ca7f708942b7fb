"""A client generated from the discovery document that fleetd serves does what fleet 1.0's clients did.

Usage: discovery_client.py ORIGIN PREFIX, as http://127.0.0.1:4100 fleet/v1. Everything here asks the server; each step asserts.
"""

import sys

import httplib2
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError

origin, prefix = sys.argv[1:]
status, document = httplib2.Http().request(f"{origin}/{prefix}/discovery")
assert status.status == 200, status
fleet = build_from_document(document, http=httplib2.Http())

machines = fleet.Machines().List().execute()["machines"]
assert [machine["metadata"] for machine in machines] == [{"node": "a"}], machines
label = {"op": "add", "path": f"/{machines[0]['id']}/metadata/rack", "value": "7"}
fleet.Machines().Patch(body=[label]).execute()
fleet.Machines().Patch(body=[label | {"value": {"value": "8"}}]).execute()
assert fleet.Machines().List().execute()["machines"][0]["metadata"] == {"node": "a", "rack": "8"}
fleet.Machines().Patch(body=[{"op": "remove", "path": label["path"]}]).execute()

sleep = [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep 1000"}]
fleet.Units().Set(unitName="py.service", body={"name": "py.service", "options": sleep}).execute()
fleet.Units().Set(unitName="py.service", body={"name": "py.service", "desiredState": "loaded"}).execute()
unit = fleet.Units().Get(unitName="py.service").execute()
assert (unit["desiredState"], unit["options"]) == ("loaded", sleep), unit
fleet.Units().Delete(unitName="py.service").execute()
try:
    fleet.Units().Get(unitName="py.service").execute()
    raise AssertionError("a unit that was destroyed is still there")
except HttpError as error:
    assert (error.status_code, error.reason) == (404, "unit does not exist"), error

for number in range(101):
    fleet.Units().Set(unitName=f"page-{number}.service", body={"options": sleep}).execute()
names, request = [], fleet.Units().List()
while request is not None:
    page = request.execute()
    names += [unit["name"] for unit in page["units"]]
    request = fleet.Units().List_next(request, page)
assert names == sorted(names) and {f"page-{number}.service" for number in range(101)} <= set(names), names
for number in range(101):
    fleet.Units().Delete(unitName=f"page-{number}.service").execute()

states = fleet.UnitState().List(unitName="hello.service").execute()["states"]
assert [state["systemdActiveState"] for state in states] == ["active"], states
assert fleet.UnitState().Get(unitName="hello.service").execute() == states[0]
assert "systemdActiveState" not in fleet.UnitState().Get(unitName="nosuch.service").execute()
